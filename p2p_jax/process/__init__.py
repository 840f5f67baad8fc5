"""What concerns the whole process or the whole machine: malloc, and folders where things are kept between runs."""
