"""Chest CT triage in viral pneumonia: a CT study in, DICOM SEG and a TID 1500 report out.

The data flow, one module a step::

    series.find_series -> reading.read_volume -> lungs.segment_lungs -> lesions.LesionModel.find
        -> severity.assess_severity -> followup_priors.follow_up_on
        -> seg.build_seg, report.build_report, result_json.build_result, fhir.build_fhir
        -> results.write_results

Every step is a plain function; :mod:`ct_triage.application` chains them as MONAI Deploy operators.
"""

__version__ = "0.1.0"
