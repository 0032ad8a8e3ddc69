"""Services: their versions and replicas, how many there are to be, how a new version takes over, what models exist."""
