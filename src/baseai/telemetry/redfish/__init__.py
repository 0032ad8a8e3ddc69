"""Redfish: a management controller asked over the network. What its answers mean is `board`'s to say."""
