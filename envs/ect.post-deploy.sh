# Snakemake takes PYTHONPATH from the jobs in an environment of conda. Whoever activates this one
# gets back the place of the package ect, which workflow/rules/common.smk knows.
mkdir -p "$CONDA_PREFIX/etc/conda/activate.d"
echo '[ -z "${ECT_PYTHONPATH:-}" ] || export PYTHONPATH="$ECT_PYTHONPATH"' \
  >"$CONDA_PREFIX/etc/conda/activate.d/ect.sh"
