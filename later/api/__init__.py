"""What programs, pages and the command line ask, over HTTP."""
