"""The HTTP gateway: admission, submission to the queue, and the routes."""
