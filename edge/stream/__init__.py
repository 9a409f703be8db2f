"""What flows: generations, what keeps their events, and who reads them."""
