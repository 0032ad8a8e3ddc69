"""A board is what a management controller (BMC) knows of the machine around it, told over Redfish."""
