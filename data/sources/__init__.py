"""From files and data sets of the hub to documents, and which of them are held out."""
