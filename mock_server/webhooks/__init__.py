"""The end of a task, reported to where its author asked for it: signed, sent, and tried again."""
