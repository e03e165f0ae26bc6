"""What is done to one image and to what belongs to it."""
