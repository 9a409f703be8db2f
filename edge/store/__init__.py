"""What is kept beyond an exchange: the ports, and what implements them."""
