# Every target does all the set-up it needs: .venv/ from the hashed lock, powerd itself, the generated protobuf code.
PY := .venv/bin/python

.PHONY: protos
protos:  ## regenerate powerd/v1 from protos/ in place
	$(PY) protos/generate.py
