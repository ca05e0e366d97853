"""The other routes: what each takes, who may, which flow answers."""
