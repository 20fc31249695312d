"""Offhook: the appliance that lets AI answer the phone behind any telephony."""

__version__ = "0.1.0"
