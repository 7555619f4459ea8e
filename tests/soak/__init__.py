"""Long runs that try to break a law; each has a short form among the laws."""
