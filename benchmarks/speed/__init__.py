"""How fast the flow is, beside other libraries and the bare arithmetic: `make bench-speed`."""
