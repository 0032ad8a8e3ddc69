"""REST: the door every client, agent and page comes through. Translates, authenticates, maps faults to statuses."""
