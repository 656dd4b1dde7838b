"""What runs at a site: the agent, the local registry beside it, and their supervisor."""
