"""The benchmark as a graph of files: config, plan, stages, and the commands that run them."""
