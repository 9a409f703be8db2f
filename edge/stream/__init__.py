"""The flow: generations, their journals and readers, and the exchange that runs a request from start to record."""
