"""What a route does with a request beside sending it on: pure decisions, compiled when a configuration is loaded."""
