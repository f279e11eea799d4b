"""The engine: gradients of networks, and the exact gradient through an unrolled student.

`backend` chooses once which implementation computes a network's gradient and its tangent; `unroll`
differentiates J student steps with them; `distance` compares the end point with an expert.
"""
