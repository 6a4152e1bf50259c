"""AWS' protocols over HTTP: servers on loopback, and a proxy in front of them that makes trouble."""
