"""Patches and probes for single requests of a vLLM server. vLLM calls :func:`libgraphpatch.vllm.install.install` in
each of its processes, as a plugin, if ``GRAPHPATCH_VLLM`` names a folder:

$ GRAPHPATCH_VLLM=steering vllm serve MODEL --enforce-eager

A request that brings ``{"graphpatch": [{"path": "model.layers_2.output|sub_0", "kind": "add", "value": "@v.pt"}]}`` as
``extra_args`` (over HTTP: ``vllm_xargs``) is then the only one of its batch that is patched.
"""
