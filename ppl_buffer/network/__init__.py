"""The buffered transformer: its sizes, its weights in files, and what both backends share."""
