"""A structured report in the words of other systems: FHIR and HL7 v2."""
