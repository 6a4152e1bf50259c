"""Sources: what comes out of databases, files and lists, and what is said when nothing can."""
