"""Other proxies' and libraries' configuration → that of the sidecar (`sidecar import`)."""
