"""The model-server side: open a call, push its batches into a sink, and know which servers are there."""
