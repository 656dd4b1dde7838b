"""The satellite: what runs at a site, apart from Prefect."""
