"""The CoAP server's answers. The modules need the library of the extra `coap`."""
