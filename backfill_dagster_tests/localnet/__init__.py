"""Tests of the local network: its repos judged by strangers, its servers by a plain client."""
