"""x"""
def test_network_json(small_run):
    import pathlib
    assert (small_run.output/"network.json").read_bytes() == pathlib.Path("/work/main/bundle/models/network.json").read_bytes()
    print(small_run.log)
