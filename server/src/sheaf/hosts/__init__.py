"""What serves models over HTTP: this process, a Ray cluster, Modal. Each is a module of its own."""
