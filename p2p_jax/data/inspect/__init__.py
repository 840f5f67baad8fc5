"""A data set looked at before training: faults, suggestions, a sheet of pictures."""
