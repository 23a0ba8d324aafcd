"""Published fits repeated by their authors' recipe, a file for each study."""
