"""Records and fits to one HTML file that opens offline."""
