"""A synthetic TEE: a throw-away PKI under which quotes, GPU evidence and signatures are minted."""
