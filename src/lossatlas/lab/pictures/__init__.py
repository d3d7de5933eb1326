"""Pictures of a report: images with what is drawn over them, one file for each task."""
