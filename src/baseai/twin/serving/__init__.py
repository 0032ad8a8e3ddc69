"""Requests to a service, replayed through an autoscaler on a virtual clock."""
