"""Devices and a server: packed spikes, messages, a shaped link, processes. Knows nothing of what runs on them."""
