"""What a request is and what comes of it, apart from how either travels: operations, decoding, outcomes."""
