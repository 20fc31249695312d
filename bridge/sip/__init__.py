"""SIP: messages, SDP, transactions, dialogs and the user agent. Knows nothing of agents or media."""
