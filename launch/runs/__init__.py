"""One run: its loop, its folder, and what stops, resumes or ends it."""
