"""Settings of the whole process or machine: malloc, and folders that are kept between runs."""
