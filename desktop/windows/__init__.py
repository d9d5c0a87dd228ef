"""The window and its pages. A page is imported when it is first shown, and idle while it is hidden."""
