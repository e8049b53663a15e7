"""What torch has a kernel or a cheaper spelling for, put in after everything is derived."""
