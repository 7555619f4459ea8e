"""Load: what sends requests, and the server that paces streams. Each runs in a process of its own."""
