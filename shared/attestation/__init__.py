"""What proves a call, and how it is judged: pure code, which reads no clock, store or network.

What is served, as it is read (claims, no facts):
  report       every provider's attestation report, as one
  message      a message's signature; `aci`: the receipt that takes its place
  claim        what either says of the bytes on our wires
  forms        the several ways of writing one thing; `encoding`: hex, base64 and JSON, strictly
What is checked (each gives factors):
  quote        a TDX quote under Intel's root; `collateral`: Intel's statements, and when they are current
  report_data  whose the quote is, and how fresh
  event_log    the registers, replayed; `compose`: the software that they tell of
  gpu          which GPUs signed our nonce; `spdm`, `certificates`: what they send
  nras         NVIDIA's own word on them
  signer       whose signature some bytes carry
  machine      all of that about one machine; `choice`: which machine of a report is meant
What comes of it:
  factor       one thing that was checked; `verdict`: the label, by rule from all of them
  policy       what an operator accepts; `roots`: whose signatures are believed
  evidence     the texts it rests on; `session`: what one report proves for the calls under it
  verify       a call, its message and its session, judged
What is kept and handed out:
  receipt      the document; `signing`: the gateway's signature on it and on heads
  merkle       the tree of the log; `log_proof`: that a receipt is in it
  export       a receipt as a file; `audit`: the file judged again, by roots of the auditor's own
"""
