"""The AT Protocol itself, pure: text syntax, keys, DID documents, CAR files, commits, the MST and whole repos."""
