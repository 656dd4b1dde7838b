"""The Dagger pipeline: builds the project, never imports it."""
