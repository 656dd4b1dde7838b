"""The gateway to Prefect: lets through what a site's worker calls about its own, and nothing else."""
