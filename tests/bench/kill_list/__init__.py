"""What a sidecar lives through when something around it is killed, stopped, full or gone."""
